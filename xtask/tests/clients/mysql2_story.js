// mysql2, unmodified. Arguments: the port, then "plain" or "compressed". Prints "ok".
const assert = require("node:assert");
const mysql = require("mysql2/promise");

async function main([port, how]) {
  const connection = await mysql.createConnection({
    host: "127.0.0.1", port: Number(port), user: "app", password: "app-lab-password", database: "app",
    compress: how === "compressed",
  });
  const [[status]] = await connection.query("SHOW STATUS LIKE 'Compression'");
  assert.equal(status.Value, how === "compressed" ? "ON" : "OFF");
  for (let id = 100; id < 120; id++) {
    await connection.execute("INSERT INTO notes (id, note) VALUES (?, ?)", [id, `größe ${id}`]);
  }
  const [rows] = await connection.execute("SELECT id, note FROM notes WHERE id >= ? ORDER BY id", [100]);
  assert.equal(rows.length, 20);
  assert.deepEqual({ ...rows[0] }, { id: 100, note: "größe 100" });
  for (const ask of ["query", "execute"]) {
    await assert.rejects(connection[ask]("DELETE FROM notes"), (error) => {
      assert.equal(error.errno, 1142);
      assert.match(error.sqlMessage, /^refused by tidegate/);
      return true;
    });
  }
  const data = Buffer.alloc(3_000_000, "0123456789abcdef");
  await connection.query("INSERT INTO blobs VALUES (1, ?)", [data]);
  const [[blob]] = await connection.query("SELECT data FROM blobs WHERE id = 1");
  assert.ok(blob.data.equals(data));
  await connection.ping();
  await connection.changeUser({ user: "app", password: "app-lab-password", database: "app" });
  const [[last]] = await connection.query("SELECT count(*) AS count, database() AS db FROM notes");
  assert.deepEqual({ ...last }, { count: 23, db: "app" });
  await connection.end();
  console.log("ok");
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
