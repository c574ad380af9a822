"""What Peewee sends: tables, introspection, queries of many kinds, upserts, savepoints, locks."""

import datetime
import os

from peewee import (
    JOIN, Case, CharField, DateTimeField, DecimalField, ForeignKeyField, IntegerField, Model, TextField, Tuple,
    Value, fn, prefetch,
)
from playhouse.migrate import PostgresqlMigrator, migrate
from playhouse.postgres_ext import ArrayField, BinaryJSONField, PostgresqlExtDatabase
from playhouse.reflection import Introspector

db = PostgresqlExtDatabase(
    os.environ["HARVEST_DB"], host=os.environ["HARVEST_HOST"], port=int(os.environ["HARVEST_PORT"]), user="postgres",
)


class Base(Model):
    class Meta:
        database = db


class Author(Base):
    name = CharField(index=True)
    profile = BinaryJSONField(null=True)


class Book(Base):
    title = TextField()
    pages = IntegerField(default=1)
    price = DecimalField(default=1)
    words = ArrayField(TextField, default=list)
    sold = DateTimeField(default=datetime.datetime.now)
    author = ForeignKeyField(Author, backref="books", on_delete="CASCADE")

    class Meta:
        indexes = ((("title", "author"), True),)


class Tag(Base):
    name = CharField(unique=True)
    parent = ForeignKeyField("self", null=True, backref="children")


def write():
    authors = [Author.create(name=f"author {n}", profile={"a": {"b": n}}) for n in range(4)]
    Book.insert_many([{"title": f"{a.id}.{k}", "author": a, "words": ["x"]} for a in authors for k in range(3)]).execute()
    root = Tag.create(name="root")
    Tag.create(name="leaf", parent=root)
    Tag.insert(name="root").on_conflict_ignore().execute()
    Tag.insert(name="root").on_conflict(conflict_target=[Tag.name], update={Tag.name: "root"}).execute()
    Book.update(price=Book.price + 1).where(Book.pages < 5).returning(Book.id).execute()
    Book.update({Book.pages: 3}).where(Book.author.in_(Author.select().where(Author.name == "author 1"))).execute()
    Book.delete().where(Book.id == 1).execute()
    Author.get_or_create(name="new")
    authors[0].name = "somebody"
    authors[0].save()
    with db.atomic() as outer:
        with db.atomic() as inner:
            authors[3].delete_instance(recursive=True)
            inner.rollback()
        outer.commit()
    Book.bulk_update(list(Book.select().limit(2)), fields=[Book.pages])
    Book.insert_from(Book.select(Book.title.concat("!"), Book.pages, Book.price, Book.words, Book.sold, Book.author), [Book.title, Book.pages, Book.price, Book.words, Book.sold, Book.author]).execute()


def read():
    other, parent = Book.alias(), Tag.alias()
    counted = Book.select(Book.author, fn.COUNT(Book.id).alias("n")).group_by(Book.author)
    base = Tag.select(Tag.id, Tag.name, Value(0).alias("depth")).where(Tag.parent.is_null()).cte("tree", recursive=True, columns=("id", "name", "depth"))
    step = parent.select(parent.id, parent.name, base.c.depth + 1).join(base, on=(parent.parent == base.c.id))
    tree = base.union_all(step)
    queries = [
        Author.select(), Author.select().order_by(Author.name.desc()).paginate(2, 2), Author.select().where(Author.name.contains("a")),
        Author.select().where(Author.name.startswith("a") & ~(Author.id << [1, 2])), Book.select(Book, Author).join(Author),
        Book.select().join(Author, JOIN.LEFT_OUTER).switch(Book).where(Author.name.is_null(False)), Book.select(fn.SUM(Book.price), fn.AVG(Book.pages)),
        counted, Author.select(Author, fn.COUNT(Book.id).alias("n")).join(Book, JOIN.LEFT_OUTER).group_by(Author).having(fn.COUNT(Book.id) > 1),
        Author.select(Author.name, counted.c.n).join(counted, on=(counted.c.author_id == Author.id)), Book.select().where(Book.author.in_(Author.select())),
        Book.select(Book.title, fn.RANK().over(partition_by=[Book.author], order_by=[Book.price])), Book.select().where(fn.EXISTS(other.select().where(other.id < Book.id))),
        Book.select(Case(None, [(Book.pages > 2, "a")], "b")), Book.select(Book.sold.year, Book.sold.truncate("month"), fn.NOW()),
        Book.select(Book.price.cast("text"), fn.LOWER(Book.title), fn.COALESCE(Book.title, "")), Book.select().where(Book.words.contains("x")),
        Book.select().where(Book.words.contains_any("x", "y")), Book.select(Book.words[0], fn.array_length(Book.words, 1)), Book.select().where(Book.title.regexp("^1")),
        Author.select(Author.profile["a"]["b"]).where(Author.profile.has_key("a")), Author.select().where(Author.profile.contains({"a": {"b": 1}})),
        Author.select().where(Author.profile["a"]["b"] == "1"), Book.select(Book.id) | Tag.select(Tag.id), Book.select(Book.id) & Tag.select(Tag.id),
        Book.select(Book.id) - Tag.select(Tag.id), tree.select_from(tree.c.id, tree.c.name, tree.c.depth), Book.select().distinct(Book.author).order_by(Book.author),
        Book.select(Book.author).distinct(), Book.select().where(Tuple(Book.id, Book.pages).in_([(1, 2)])), Book.select().order_by(fn.Random()).limit(1),
        Book.select().where(Book.price.between(1, 2) | (fn.MOD(Book.pages, 2) == 0)), Book.select(fn.STRING_AGG(Book.title, ",").filter(Book.pages > 1)),
        Book.select(fn.COUNT(1)).group_by(fn.ROLLUP(Book.author)),
    ]
    for query in queries:
        list(query.dicts())
    prefetch(Author.select(), Book.select()), Book.select().count(), Book.select().exists(), Book.get_or_none(Book.id == 2), Author.get_by_id(1).books.count()
    with db.atomic():
        for lock in ("FOR UPDATE", "FOR UPDATE SKIP LOCKED", "FOR SHARE NOWAIT"):
            list(Book.select().where(Book.id == 2).for_update(lock))
    for row in Book.select().iterator():
        _ = row


def inspect():
    for table in db.get_tables():
        db.get_columns(table), db.get_indexes(table), db.get_primary_keys(table), db.get_foreign_keys(table), db.table_exists(table)
    db.get_views(), db.sequence_exists("x"), Introspector.from_database(db).generate_models()


def main():
    db.connect()
    db.create_tables([Author, Book, Tag])
    write()
    read()
    inspect()
    migrator = PostgresqlMigrator(db)
    migrate(migrator.add_column("tag", "note", TextField(null=True)), migrator.add_index("tag", ("note",)), migrator.drop_column("tag", "note"))
    db.drop_tables([Tag, Book, Author])
    # The harvest tries the statements again: their tables have to be there.
    db.create_tables([Author, Book, Tag])
    db.close()


main()
