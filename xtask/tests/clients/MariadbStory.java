import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/** A service in Java over MariaDB's driver. Arguments: the port, then more of the URL's options. Prints "ok". */
public class MariadbStory {
    static void must(boolean isSo, String what) {
        if (!isSo) throw new AssertionError(what);
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:mariadb://127.0.0.1:" + args[0] + "/app?user=app&password=app-lab-password" + args[1];
        try (Connection connection = DriverManager.getConnection(url)) {
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO notes VALUES (?, ?)")) {
                for (int id = 100; id < 300; id++) {
                    insert.setInt(1, id);
                    insert.setString(2, "note " + id);
                    insert.addBatch();
                }
                must(insert.executeBatch().length == 200, "batch");
            }
            try (PreparedStatement select = connection.prepareStatement("SELECT note FROM notes WHERE id = ?")) {
                for (int id = 100; id < 120; id++) {
                    select.setInt(1, id);
                    try (ResultSet rows = select.executeQuery()) {
                        must(rows.next() && rows.getString(1).equals("note " + id), "row " + id);
                    }
                }
            }
            try (Statement statement = connection.createStatement()) {
                try {
                    statement.executeUpdate("DELETE FROM notes");
                    throw new AssertionError("not refused");
                } catch (SQLException refused) {
                    must(refused.getErrorCode() == 1142, "code " + refused.getErrorCode());
                    must(refused.getMessage().contains("refused by tidegate"), refused.getMessage());
                }
                statement.setFetchSize(50);
                int count = 0;
                try (ResultSet rows = statement.executeQuery("SELECT id FROM notes ORDER BY id")) {
                    while (rows.next()) count++;
                }
                must(count == 203, "count " + count);
            }
            must(connection.isValid(10), "valid");
        }
        System.out.println("ok");
    }
}
