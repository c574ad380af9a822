// MariaDB's connector for Node.js, unmodified: it sends commands ahead of answers, and batches in bulk. Argument: the port.
// Prints "ok".
const assert = require("node:assert");
const mariadb = require("mariadb");

async function main([port]) {
  const connection = await mariadb.createConnection({
    host: "127.0.0.1", port: Number(port), user: "app", password: "app-lab-password", database: "app",
  });
  const rows = Array.from({ length: 100 }, (_, n) => [100 + n, `größe ${100 + n}`]);
  const result = await connection.batch("INSERT INTO notes (id, note) VALUES (?, ?)", rows);
  assert.equal(result.affectedRows, 100);
  // All are on their way before the first is answered.
  const ahead = rows.map(([id]) => connection.execute("SELECT note FROM notes WHERE id = ?", [id]));
  const refused = connection.query("DELETE FROM notes").then(
    () => assert.fail("not refused"),
    (error) => error,
  );
  const behind = connection.query("SELECT count(*) AS count FROM notes");
  const answers = await Promise.all(ahead);
  answers.forEach((answer, n) => assert.equal(answer[0].note, `größe ${100 + n}`));
  const error = await refused;
  assert.equal(error.errno, 1142);
  assert.match(error.message, /refused by tidegate/);
  assert.equal((await behind)[0].count, 103n);
  await connection.ping();
  await connection.changeUser({ user: "app", password: "app-lab-password", database: "app" });
  await connection.reset();
  const [last] = await connection.query("SELECT count(*) AS count FROM notes");
  assert.equal(last.count, 103n);
  await connection.end();
  console.log("ok");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
