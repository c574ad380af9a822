"""What SQLAlchemy sends: tables, reflection, unit of work, queries of many kinds, locks, savepoints."""

import os
from datetime import date, datetime, timedelta

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ForeignKey, func, select
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import (
    DeclarativeBase, Mapped, Session, aliased, contains_eager, joinedload, mapped_column, relationship,
    selectinload, subqueryload,
)


class Base(DeclarativeBase):
    pass


book_tag = sa.Table(
    "book_tag", Base.metadata,
    sa.Column("book_id", ForeignKey("book.id"), primary_key=True),
    sa.Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80), index=True)
    born: Mapped[date | None]
    profile: Mapped[dict | None] = mapped_column(pg.JSONB)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    __table_args__ = (sa.CheckConstraint("pages > 0"), sa.UniqueConstraint("title", "author_id"))
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    title: Mapped[str]
    pages: Mapped[int] = mapped_column(server_default="1")
    price: Mapped[float] = mapped_column(sa.Numeric(8, 2), default=1)
    kind: Mapped[str] = mapped_column(sa.Enum("paper", "audio", name="book_kind"), default="paper")
    words: Mapped[list[str] | None] = mapped_column(pg.ARRAY(sa.Text))
    sold: Mapped[datetime] = mapped_column(server_default=func.now())
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id", ondelete="CASCADE"))
    author: Mapped[Author] = relationship(back_populates="books")
    tags: Mapped[list["Tag"]] = relationship(secondary=book_tag)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tag.id"))
    parent: Mapped["Tag | None"] = relationship(remote_side=[id])


def write(engine):
    with Session(engine) as session:
        tags = [Tag(name=f"t{n}") for n in range(5)]
        tags[1].parent = tags[0]
        tags[2].parent = tags[1]
        session.add_all(tags)
        for n in range(6):
            author = Author(name=f"author {n}", born=date(1900 + n, 1, 1), profile={"a": {"b": n}, "c": [1, 2]})
            author.books = [
                Book(title=f"book {n}.{k}", pages=100 + k, words=["x", "y"], tags=tags[: k + 1]) for k in range(3)
            ]
            session.add(author)
        session.commit()
        first = session.get(Author, 1)
        first.name = "somebody"
        first.books.pop()
        session.flush()
        with session.begin_nested():
            session.execute(sa.update(Book).where(Book.pages > 101).values(price=Book.price * 2))
        insert = pg.insert(Tag).values([{"name": "t1"}, {"name": "t9"}])
        session.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"name": insert.excluded.name}))
        session.execute(insert.on_conflict_do_nothing())
        session.execute(sa.insert(Tag).returning(Tag.id), [{"name": "r1"}, {"name": "r2"}])
        session.execute(sa.delete(Tag).where(Tag.name == "r1"))
        session.bulk_update_mappings(Book, [{"id": 1, "pages": 7}, {"id": 2, "pages": 8}])
        session.delete(session.get(Author, 6))
        session.commit()


def read(session):
    other, parent = aliased(Book), aliased(Tag)
    by_author = select(Book.author_id, func.count().label("n")).group_by(Book.author_id).subquery()
    top = select(Tag.id, Tag.name, sa.literal(0).label("depth")).where(Tag.parent_id.is_(None)).cte("tree", recursive=True)
    tree = top.union_all(select(Tag.id, Tag.name, top.c.depth + 1).join(top, Tag.parent_id == top.c.id))
    newest = select(Book).where(Book.author_id == Author.id).order_by(Book.sold.desc()).limit(1).lateral("newest")
    ranked = func.row_number().over(partition_by=Book.author_id, order_by=Book.price.desc())
    total = func.sum(Book.price).over(order_by=Book.id, rows=(-2, 0))
    queries = [
        select(Author), select(Author.id, Author.name).order_by(Author.name.desc().nulls_last()).limit(3).offset(1),
        select(Author).options(selectinload(Author.books).selectinload(Book.tags)),
        select(Author).options(joinedload(Author.books)), select(Author).options(subqueryload(Author.books)),
        select(Book).join(Book.author).options(contains_eager(Book.author)).where(Author.name.ilike("a%")),
        select(Book).where(Book.tags.any(Tag.name == "t1")), select(Book).where(~Book.tags.any()),
        select(Book).where(Book.author.has(name="author 2")), select(func.count()).select_from(Book),
        select(Author.name, func.coalesce(by_author.c.n, 0)).outerjoin(by_author, by_author.c.author_id == Author.id),
        select(Book.kind, func.avg(Book.pages), func.max(Book.price)).group_by(Book.kind).having(func.count() > 1),
        select(tree), select(Author.name, newest.c.title).join(newest, sa.true()),
        select(Book.title, ranked.label("r"), total), select(sa.distinct(Book.kind)),
        select(Book).distinct(Book.author_id).order_by(Book.author_id, Book.price),
        select(Author).where(Author.profile["a"]["b"].as_integer() > 2),
        select(Author).where(Author.profile.contains({"c": [1]})), select(Author).where(Author.profile.has_key("a")),
        select(Author.profile["a"].astext, Author.profile[("a", "b")]), select(Book).where(Book.words.any("x")),
        select(Book).where(Book.words.contains(["x"])), select(Book).where(Book.words.overlap(["y", "z"])),
        select(func.unnest(Book.words)), select(func.array_agg(pg.aggregate_order_by(Book.title, Book.id.desc()))),
        select(func.string_agg(Book.title, ", ")), select(sa.case((Book.pages > 100, "long"), else_="short")),
        select(sa.cast(Book.price, sa.Text), sa.type_coerce(Book.pages, sa.Float)),
        select(sa.extract("year", Book.sold), func.date_trunc("month", Book.sold), func.to_char(Book.sold, "YYYY")),
        select(Book).where(Book.sold > func.now() - timedelta(days=1)), select(Book).where(Book.id.in_([1, 2, 3])),
        select(Book).where(Book.id.in_([])), select(Book).where(sa.tuple_(Book.id, Book.pages).in_([(1, 7)])),
        select(Book).where(Book.title.regexp_match("^b")), select(Book).where(Book.title.startswith("b", autoescape=True)),
        select(Book.title).union(select(Tag.name)).order_by("title"), select(Book.id).intersect(select(Tag.id)),
        select(Book.id).except_all(select(Tag.id)), select(sa.exists(select(Book).where(Book.id == 1))),
        select(Book, other).join(other, sa.and_(other.author_id == Book.author_id, other.id < Book.id)),
        select(Tag.name, parent.name).outerjoin(parent, Tag.parent_id == parent.id),
        select(Book).where(Book.price == select(func.max(Book.price)).scalar_subquery()),
        select(func.percentile_cont(0.5).within_group(Book.pages)), select(func.count().filter(Book.pages > 5)).select_from(Book),
        select(Book.kind, func.count()).group_by(func.grouping_sets(sa.tuple_(Book.kind), sa.tuple_())),
        select(Book.kind, Book.pages, func.count()).group_by(func.rollup(Book.kind, Book.pages)),
        select(func.generate_series(1, 3).table_valued("n").render_derived()), select(sa.text("1")), select(sa.values(sa.column("a", sa.Integer), name="v").data([(1,), (2,)])),
        select(sa.tablesample(Book.__table__, func.bernoulli(50))),
        select(func.jsonb_build_object("t", Book.title)), select(func.to_tsvector("english", Book.title).op("@@")(func.to_tsquery("english", "book"))),
        select(func.ts_rank(func.to_tsvector(Book.title), func.plainto_tsquery("book"))), select(sa.func.current_date(), sa.func.version()),
        select(sa.collate(Book.title, "C")), select(Book.price.between(1, 2), sa.not_(Book.pages == 1), Book.title.is_distinct_from("x")),
        select(Book.title.concat("x"), Book.pages % 2, Book.pages.op("&")(1), -Book.pages), select(Book.__table__.c.id).fetch(2, with_ties=True).order_by(Book.pages),
    ]
    for query in queries:
        rows = session.execute(query)
        # Only collections that are joined need it, and only they may be.
        rows.unique().all() if rows._attributes.get("filtered") else rows.all()
    for lock in ({}, {"read": True}, {"nowait": True}, {"skip_locked": True}, {"of": Book, "key_share": True}):
        session.execute(select(Book).join(Author).where(Book.id == 1).with_for_update(**lock)).all()
    author = session.get(Author, 2)
    _ = [book.tags for book in author.books]
    session.refresh(author)
    session.expire_all()
    _ = author.name
    for row in session.execute(select(Book).execution_options(yield_per=2)):
        _ = row


def inspect(engine):
    look = sa.inspect(engine)
    look.get_schema_names(), look.get_table_names(), look.get_view_names(), look.get_materialized_view_names()
    look.get_temp_table_names(), look.get_sequence_names(), look.get_enums(), look.get_foreign_table_names(), look.get_domains()
    for table in look.get_table_names():
        look.get_columns(table), look.get_pk_constraint(table), look.get_foreign_keys(table), look.get_indexes(table)
        look.get_unique_constraints(table), look.get_check_constraints(table), look.get_table_comment(table)
        look.get_table_oid(table), look.has_table(table), look.get_table_options(table), look.has_index(table, "x")
    look.has_schema("public"), look.has_sequence("x"), look.get_view_definition("titles")
    look.get_multi_columns(), look.get_multi_indexes(), look.get_multi_foreign_keys(schema="public"), look.get_multi_table_comment()
    sa.MetaData().reflect(engine, views=True)


def migrate(engine):
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        compare_metadata(context, Base.metadata)
        context.get_current_revision()
        op = Operations(context)
        op.add_column("tag", sa.Column("note", sa.Text(), nullable=True))
        op.alter_column("tag", "note", server_default="x", existing_type=sa.Text())
        op.create_index("tag_note", "tag", ["note"], postgresql_where=sa.text("note <> ''"))
        op.drop_column("tag", "note")


def main():
    host, port, name = (os.environ[f"HARVEST_{key}"] for key in ("HOST", "PORT", "DB"))
    for driver in ("psycopg", "psycopg2"):
        engine = sa.create_engine(f"postgresql+{driver}://postgres@{host}:{port}/{name}", pool_pre_ping=True)
        with engine.begin() as connection:
            connection.exec_driver_sql("drop view if exists titles")
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("create view titles as select title from book")
        write(engine)
        with Session(engine) as session:
            read(session)
        with engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
            connection.execute(select(Book.id)).all()
            with connection.execution_options(stream_results=True).execute(select(Book.title)) as rows:
                rows.fetchmany(2)
        inspect(engine)
        migrate(engine)
        engine.dispose()


main()
