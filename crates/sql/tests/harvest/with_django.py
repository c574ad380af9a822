"""What Django sends: migrations, contenttypes and auth, queries of many kinds, admin-like paging, inspectdb."""

import io
import os
import sys
import types

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["HARVEST_DB"], "USER": "postgres",
        "HOST": os.environ["HARVEST_HOST"], "PORT": os.environ["HARVEST_PORT"],
    }},
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.postgres",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True, SECRET_KEY="harvest",
)
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.postgres.aggregates import ArrayAgg, StringAgg  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.contrib.postgres.search import SearchQuery, SearchRank, SearchVector  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.paginator import Paginator  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.db.models import (  # noqa: E402
    Avg, Case, Count, Exists, F, Max, OuterRef, Prefetch, Q, Subquery, Sum, Value, When, Window,
)
from django.db.models import functions as fn  # noqa: E402

# Models of no package's own application.
sys.modules["shop"] = types.ModuleType("shop")


class Author(models.Model):
    name = models.CharField(max_length=80, db_index=True)
    born = models.DateField(null=True)
    profile = models.JSONField(default=dict)

    class Meta:
        app_label = "contenttypes"
        db_table = "shop_author"


class Tag(models.Model):
    name = models.SlugField(unique=True)

    class Meta:
        app_label = "contenttypes"
        db_table = "shop_tag"


class Book(models.Model):
    title = models.TextField()
    pages = models.PositiveIntegerField(default=1)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=1)
    words = ArrayField(models.TextField(), default=list)
    sold = models.DateTimeField(auto_now_add=True)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag, db_table="shop_book_tags")

    class Meta:
        app_label = "contenttypes"
        db_table = "shop_book"
        constraints = [models.UniqueConstraint(fields=["title", "author"], name="shop_title")]
        indexes = [models.Index(fields=["-sold"], name="shop_sold")]


def write():
    tags = Tag.objects.bulk_create([Tag(name=f"t{n}") for n in range(4)])
    for n in range(5):
        author = Author.objects.create(name=f"author {n}", profile={"a": {"b": n}, "c": [1]})
        for k in range(3):
            Book.objects.create(title=f"{n}.{k}", pages=100 + k, author=author, words=["x"]).tags.set(tags[: k + 1])
    Tag.objects.bulk_create([Tag(name="t0")], ignore_conflicts=True)
    Tag.objects.bulk_create([Tag(name="t0")], update_conflicts=True, update_fields=["name"], unique_fields=["name"])
    Author.objects.get_or_create(name="new"), Author.objects.update_or_create(name="new", defaults={"born": "1999-01-01"})
    Book.objects.filter(pages__gt=101).update(price=F("price") * 2, title=fn.Concat("title", Value("!"), output_field=models.TextField()))
    books = list(Book.objects.all()[:3])
    for book in books:
        book.pages += 1
    Book.objects.bulk_update(books, ["pages"])
    with transaction.atomic():
        with transaction.atomic():
            Book.objects.filter(author__name="author 4").delete()
        transaction.on_commit(lambda: None)
    author = Author.objects.first()
    author.save(), author.delete()
    user = User.objects.create_user("u", "u@example.org", "p")
    group = Group.objects.create(name="g")
    group.permissions.set(Permission.objects.all()[:2]), user.groups.add(group)
    store = SessionStore()
    store["a"] = 1
    store.save(), SessionStore(store.session_key).load()


def read():
    latest = Book.objects.filter(author=OuterRef("pk")).order_by("-sold")
    queries = [
        Author.objects.all(), Author.objects.order_by("-name")[1:3], Author.objects.filter(name__icontains="a").exclude(born=None),
        Author.objects.annotate(n=Count("books")).filter(n__gt=1), Author.objects.annotate(t=Subquery(latest.values("title")[:1])),
        Author.objects.filter(Exists(latest.filter(pages__gt=5))), Author.objects.prefetch_related("books__tags"),
        Author.objects.prefetch_related(Prefetch("books", Book.objects.filter(pages__gt=2), "thick")),
        Author.objects.filter(profile__a__b=2), Author.objects.filter(profile__a__b__gt=1), Author.objects.filter(profile__has_key="a"),
        Author.objects.filter(profile__contains={"c": [1]}), Author.objects.values("profile__a"), Author.objects.filter(name__regex="^a"),
        Author.objects.filter(born__year__gte=1900, born__month__in=[1, 2]), Author.objects.dates("born", "year"),
        Book.objects.select_related("author").filter(author__name__startswith="author"), Book.objects.filter(tags__name__in=["t1", "t2"]).distinct(),
        Book.objects.values("author__name").annotate(s=Sum("price"), a=Avg("pages"), m=Max("sold")).order_by("-s"),
        Book.objects.filter(Q(pages__lt=5) | ~Q(title__endswith="x") & Q(price__range=(1, 2))), Book.objects.filter(id__in=[]),
        Book.objects.annotate(r=Window(fn.RowNumber(), partition_by="author", order_by=F("price").desc())),
        Book.objects.annotate(r=Window(fn.Lag("title"), order_by="id")).filter(r__isnull=False),
        Book.objects.annotate(k=Case(When(pages__gt=100, then=Value("long")), default=Value("short"))).values_list("k", flat=True),
        Book.objects.annotate(y=fn.ExtractYear("sold"), m=fn.TruncMonth("sold"), w=fn.TruncDate("sold")).values("y", "m", "w"),
        Book.objects.annotate(l=fn.Length("title"), u=fn.Upper("title"), s=fn.Substr("title", 1, 2), c=fn.Coalesce("title", Value(""), output_field=models.TextField())),
        Book.objects.annotate(x=fn.Cast("price", models.TextField()), g=fn.Greatest("pages", 5), h=fn.MD5("title"), r=fn.Round("price")),
        Book.objects.annotate(x=fn.Left("title", 2), y=fn.LPad("title", 9), z=fn.Replace("title", Value("a"), Value("b"), output_field=models.TextField()), n=fn.Now()),
        Book.objects.filter(words__contains=["x"]), Book.objects.filter(words__overlap=["x"]), Book.objects.filter(words__len=1), Book.objects.filter(words__0="x"),
        Book.objects.annotate(v=SearchVector("title", config="english")).filter(v=SearchQuery("book", config="english")),
        Book.objects.annotate(rank=SearchRank(SearchVector("title"), SearchQuery("book"))).order_by("-rank"),
        Book.objects.order_by("author", "-price").distinct("author"), Book.objects.values("title").union(Tag.objects.values("name")).order_by("title"),
        Book.objects.values("id").intersection(Tag.objects.values("id")), Book.objects.values("id").difference(Tag.objects.values("id")),
        Book.objects.defer("title"), Book.objects.only("id"), Book.objects.order_by("?")[:1], Book.objects.none(), Book.objects.order_by(F("sold").asc(nulls_last=True)),
        Book.objects.extra(select={"one": "1"}), Book.objects.raw("select id, title from shop_book where pages > %s", [1]), Book.objects.reverse(),
        Author.objects.annotate(t=StringAgg("books__title", ", ", ordering="books__title"), a=ArrayAgg("books__id", distinct=True, default=None)),
        User.objects.filter(groups__permissions__codename="add_user"), Permission.objects.select_related("content_type"),
        User.objects.with_perm("auth.add_user", backend="django.contrib.auth.backends.ModelBackend"),
    ]
    for query in queries:
        list(query)
    Book.objects.count(), Book.objects.exists(), Book.objects.aggregate(Sum("price"), Count("author", distinct=True), n=Count("id", filter=Q(pages__gt=3)))
    Book.objects.first(), Book.objects.last(), Book.objects.latest("sold"), Book.objects.earliest("sold"), Book.objects.in_bulk([2, 3])
    Book.objects.filter(id__in=[2, 3]).explain(), Book.objects.explain(analyze=True, format="json", verbose=True), list(Book.objects.iterator(chunk_size=2))
    page = Paginator(Book.objects.order_by("id"), 2)
    _ = page.count, list(page.page(2))
    user = User.objects.get(username="u")
    user.has_perm("auth.add_user"), user.get_all_permissions(), Book.objects.first().refresh_from_db()
    list(Author.objects.last().books.all()), list(Tag.objects.first().book_set.values_list("id", "title"))
    with transaction.atomic():
        for lock in ({}, {"nowait": True}, {"skip_locked": True}, {"of": ("self",)}, {"no_key": True}):
            list(Book.objects.select_for_update(**lock).filter(id=2))
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        list(Book.objects.all()[:1])


def main():
    call_command("migrate", verbosity=0, run_syncdb=True)
    with connection.schema_editor() as editor:
        for model in (Author, Tag, Book):
            editor.create_model(model)
        field = models.TextField(null=True)
        field.set_attributes_from_name("note")
        editor.add_field(Tag, field), editor.remove_field(Tag, field)
    write()
    read()
    call_command("inspectdb", stdout=io.StringIO(), include_views=True, include_partitions=True)
    call_command("showmigrations", stdout=io.StringIO()), call_command("migrate", plan=True, stdout=io.StringIO())
    call_command("dumpdata", stdout=io.StringIO()), call_command("sqlsequencereset", "auth", stdout=io.StringIO())
    call_command("check", database=["default"]), call_command("clearsessions"), call_command("flush", interactive=False, verbosity=0)
    with connection.schema_editor() as editor:
        for model in (Book, Tag, Author):
            editor.delete_model(model)
        # The harvest tries the statements again: their tables have to be there.
        for model in (Author, Tag, Book):
            editor.create_model(model)


main()
