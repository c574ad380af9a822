import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/** What a service written in Java does; prints "ok" when all was as it must. */
public class Story {
    static void must(boolean isSo, String what) {
        if (!isSo) throw new AssertionError(what);
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/app?user=app";
        try (Connection connection = DriverManager.getConnection(url)) {
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO items VALUES (?, ?)")) {
                for (int id = 1; id <= 500; id++) {
                    insert.setInt(1, id);
                    insert.setString(2, "item " + id);
                    insert.addBatch();
                }
                must(insert.executeBatch().length == 500, "batch");
            }
            try (PreparedStatement select = connection.prepareStatement("SELECT name FROM items WHERE id = ?")) {
                for (int id = 1; id <= 20; id++) {
                    select.setInt(1, id);
                    try (ResultSet rows = select.executeQuery()) {
                        must(rows.next() && rows.getString(1).equals("item " + id), "row " + id);
                    }
                }
            }
            connection.setAutoCommit(false);
            try (Statement all = connection.createStatement()) {
                all.setFetchSize(50);
                int count = 0;
                try (ResultSet rows = all.executeQuery("SELECT id FROM items ORDER BY id")) {
                    while (rows.next()) must(rows.getInt(1) == ++count, "fetched row " + count);
                }
                must(count == 500, "fetched " + count);
            }
            connection.commit();
            refused(connection);
            connection.rollback();
            connection.setAutoCommit(true);
            refused(connection);
            try (Statement again = connection.createStatement(); ResultSet rows = again.executeQuery("SELECT 1")) {
                must(rows.next() && rows.getInt(1) == 1, "the connection lives on");
            }
        }
        System.out.println("ok");
    }

    static void refused(Connection connection) {
        try (Statement delete = connection.createStatement()) {
            delete.executeUpdate("DELETE FROM items");
            throw new AssertionError("the DELETE was not refused");
        } catch (SQLException error) {
            must("42501".equals(error.getSQLState()), "SQLSTATE " + error.getSQLState());
        }
    }
}
