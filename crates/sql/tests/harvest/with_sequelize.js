// What Sequelize sends: tables, introspection, queries of many kinds, upserts, savepoints, locks.
"use strict";

const { DataTypes, Op, Sequelize, QueryTypes } = require("sequelize");

const db = new Sequelize({
  dialect: "postgres", host: process.env.HARVEST_HOST, port: Number(process.env.HARVEST_PORT),
  database: process.env.HARVEST_DB, username: "postgres", logging: false,
});
const Author = db.define("Author", { name: DataTypes.STRING, profile: DataTypes.JSONB });
const Book = db.define("Book", {
  title: { type: DataTypes.TEXT, unique: true }, pages: DataTypes.INTEGER, price: DataTypes.DECIMAL(8, 2),
  kind: DataTypes.ENUM("paper", "audio"), words: DataTypes.ARRAY(DataTypes.TEXT),
}, { paranoid: true, indexes: [{ fields: ["pages"] }] });
const Tag = db.define("Tag", { name: DataTypes.STRING });
Author.hasMany(Book, { onDelete: "CASCADE" });
Book.belongsTo(Author);
Book.belongsToMany(Tag, { through: "BookTag" });
Tag.belongsToMany(Book, { through: "BookTag" });

async function write() {
  for (let n = 0; n < 3; n++) {
    const author = await Author.create({ name: `author ${n}`, profile: { a: { b: n } } });
    for (let k = 0; k < 2; k++) {
      const book = await author.createBook({ title: `${n}.${k}`, pages: 100 + k, words: ["x"], kind: "paper" });
      await book.createTag({ name: `t${n}` });
    }
  }
  await Tag.bulkCreate([{ name: "a" }, { name: "b" }], { ignoreDuplicates: true });
  await Book.upsert({ title: "0.0", pages: 5 });
  await Book.update({ pages: 7 }, { where: { pages: { [Op.gt]: 100 } } });
  await Book.increment("pages", { where: { title: "0.0" } });
  await Author.findOrCreate({ where: { name: "new" } });
  await db.transaction(async (outer) => {
    await db.transaction({ transaction: outer }, (inner) => Tag.destroy({ where: { name: "a" }, transaction: inner }));
  });
  await Book.destroy({ where: { title: "1.1" } });
  await Book.restore({ where: { title: "1.1" } });
}

async function read() {
  const { fn, col, literal, where, cast } = Sequelize;
  const queries = [
    [Author, {}], [Author, { order: [["name", "DESC"]], limit: 2, offset: 1 }], [Author, { include: Book }],
    [Author, { include: { model: Book, required: true, where: { pages: 7 }, include: Tag } }], [Book, { include: [Author, Tag] }],
    [Author, { include: { model: Book, separate: true, order: ["id"] } }], [Author, { include: Book, limit: 2, order: [[Book, "pages", "ASC"]] }],
    [Book, { where: { title: { [Op.iLike]: "%0%" }, pages: { [Op.between]: [1, 200] } } }], [Book, { where: { [Op.or]: [{ pages: 7 }, { title: null }] } }],
    [Book, { where: { id: { [Op.in]: [1, 2] }, pages: { [Op.not]: null } } }], [Book, { where: { words: { [Op.contains]: ["x"] } } }],
    [Book, { where: { words: { [Op.overlap]: ["x", "y"] } } }], [Author, { where: { "profile.a.b": 1 } }], [Author, { where: { profile: { [Op.contains]: { a: { b: 1 } } } } }],
    [Book, { attributes: ["kind", [fn("COUNT", col("id")), "n"]], group: "kind", having: where(fn("COUNT", col("id")), Op.gt, 1), raw: true }],
    [Book, { attributes: [[fn("DISTINCT", col("kind")), "kind"]], raw: true }], [Book, { attributes: { include: [[literal("pages * 2"), "double"]] } }],
    [Book, { attributes: [[cast(col("pages"), "text"), "p"], [fn("upper", col("title")), "u"]], raw: true }], [Book, { where: where(fn("lower", col("title")), "0.0") }],
    [Book, { where: { title: { [Op.regexp]: "^0" } } }], [Book, { where: { title: { [Op.startsWith]: "0" } }, paranoid: false }], [Book, { order: db.random(), limit: 1 }],
  ];
  for (const [model, options] of queries) await model.findAll(options);
  await Book.findByPk(1);
  await Book.findOne({ where: { pages: 7 } });
  await Book.findAndCountAll({ limit: 2, include: Author });
  await Book.count({ distinct: true, include: Author });
  await Promise.all([Book.sum("pages"), Book.max("pages"), Book.min("price"), Book.aggregate("pages", "avg")]);
  await db.transaction(async (transaction) => {
    for (const lock of ["UPDATE", "SHARE", "NO KEY UPDATE"]) await Book.findAll({ where: { id: 1 }, lock, transaction });
    await Book.findAll({ lock: true, skipLocked: true, transaction });
  });
  await db.query("select id from \"Books\" where pages > :p", { replacements: { p: 1 }, type: QueryTypes.SELECT });
  await db.query("select id from \"Books\" where pages > $1", { bind: [1], type: QueryTypes.SELECT });
}

async function main() {
  await db.authenticate();
  await db.sync();
  await write();
  await read();
  const look = db.getQueryInterface();
  await look.showAllTables();
  await look.describeTable("Books");
  await look.showIndex("Books", {});
  await look.getForeignKeyReferencesForTable("Books", {});
  await look.tableExists("Books");
  await look.databaseVersion({});
  await look.addColumn("Tags", "note", DataTypes.TEXT);
  await look.removeColumn("Tags", "note", {});
  await db.sync({ alter: true });
  await db.drop({});
  // The harvest tries the statements again: their tables have to be there.
  await db.sync();
  await db.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
