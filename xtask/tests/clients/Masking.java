import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.util.Arrays;
import java.util.Properties;

import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

/** Reads protected columns in every way that JDBC has, and prints all that it gets: Masking PORT USER VALUE.. */
public final class Masking {
    private static final StringBuilder SEEN = new StringBuilder();

    private static final String[] READS = {
        "SELECT * FROM customers",
        "SELECT ssn, card, email, iban, account FROM customers ORDER BY id",
        "SELECT ssn || card AS both_of_them FROM customers",
        "SELECT c FROM customers c",
        "SELECT to_jsonb(c) FROM customers c",
        "SELECT array_agg(ssn), string_agg(iban, ',') FROM customers",
        "SELECT max(email), min(account) FROM customers",
        "SELECT number, name FROM people",
        "SELECT ssn FROM parted UNION SELECT iban FROM customers",
        "WITH w AS (SELECT card FROM customers) SELECT * FROM w",
        "SELECT ssn::bytea FROM customers",
        "TABLE customers",
    };

    private static final String[] WRITES = {
        "INSERT INTO customers (id, ssn) SELECT 20000 + id, ssn FROM customers RETURNING ssn",
        "UPDATE orders SET words = words WHERE id = 1 RETURNING words, (SELECT ssn FROM customers WHERE id = 1)",
        "SELECT ssn::int FROM customers",
        "SELECT 1 / (account - account) FROM customers",
        "INSERT INTO customers SELECT * FROM customers",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT ssn FROM customers LOOP RAISE WARNING '%', r.ssn; END LOOP; END $$",
        "SELECT pg_notify('told', ssn) FROM customers",
    };

    private static void failed(SQLException error) {
        for (SQLException one = error; one != null; one = one.getNextException()) {
            SEEN.append(one.getSQLState()).append(' ').append(one).append('\n');
        }
    }

    private static void warned(SQLWarning warning) {
        for (SQLWarning one = warning; one != null; one = one.getNextWarning()) {
            SEEN.append(one).append('\n');
        }
    }

    private static void show(ResultSet rows) throws SQLException {
        ResultSetMetaData columns = rows.getMetaData();
        while (rows.next()) {
            for (int at = 1; at <= columns.getColumnCount(); at++) {
                byte[] bytes = rows.getBytes(at);
                SEEN.append(rows.getString(at)).append('|');
                SEEN.append(bytes == null ? null : new String(bytes, StandardCharsets.ISO_8859_1)).append('|');
            }
            SEEN.append('\n');
        }
    }

    private static void read(Connection connection, String text, int fetch) {
        // Several times: the driver prepares it on the server after some, and reads binary then.
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            statement.setFetchSize(fetch);
            for (int time = 0; time < 7; time++) {
                try (ResultSet rows = statement.executeQuery()) {
                    show(rows);
                }
                warned(statement.getWarnings());
            }
        } catch (SQLException error) {
            failed(error);
        }
        end(connection);
    }

    private static void write(Connection connection, String text) {
        try (Statement statement = connection.createStatement()) {
            if (statement.execute(text)) {
                show(statement.getResultSet());
            }
            warned(statement.getWarnings());
        } catch (SQLException error) {
            failed(error);
        }
        end(connection);
    }

    private static void end(Connection connection) {
        try {
            if (!connection.getAutoCommit()) {
                connection.rollback();
            }
        } catch (SQLException error) {
            failed(error);
        }
    }

    private static void keys(Connection connection) {
        String text = "UPDATE customers SET name = name WHERE id < 50";
        try (PreparedStatement statement =
                connection.prepareStatement(text, new String[] {"ssn", "card", "account"})) {
            statement.executeUpdate();
            show(statement.getGeneratedKeys());
        } catch (SQLException error) {
            failed(error);
        }
        end(connection);
    }

    private static void copy(Connection connection) {
        for (String format : new String[] {"text", "csv", "binary"}) {
            try (ByteArrayOutputStream out = new ByteArrayOutputStream()) {
                CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
                copies.copyOut("COPY customers TO STDOUT (FORMAT " + format + ")", out);
                copies.copyOut("COPY (SELECT ssn, iban FROM customers) TO STDOUT (FORMAT " + format + ")", out);
                SEEN.append(out.toString(StandardCharsets.ISO_8859_1)).append('\n');
            } catch (SQLException error) {
                failed(error);
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
            end(connection);
        }
    }

    private static void filter(Connection connection, String[] values) {
        for (String value : values) {
            try (PreparedStatement statement =
                    connection.prepareStatement("SELECT name FROM customers WHERE ssn = ?")) {
                statement.setString(1, value);
                show(statement.executeQuery());
            } catch (SQLException error) {
                failed(error);
            }
            end(connection);
        }
    }

    private static void all(String port, String user, String[] values, String[] settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", "secret");
        for (String setting : settings) {
            String[] parts = setting.split("=", 2);
            properties.setProperty(parts[0], parts[1]);
        }
        String url = "jdbc:postgresql://127.0.0.1:" + port + "/app";
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            for (boolean whole : new boolean[] {true, false}) {
                connection.setAutoCommit(whole);
                for (String text : READS) {
                    read(connection, text, whole ? 0 : 7);
                }
                for (String text : WRITES) {
                    write(connection, text);
                }
                keys(connection);
                copy(connection);
                filter(connection, values);
            }
            connection.setAutoCommit(true);
            write(connection, "LISTEN told");
            PGNotification[] told = connection.unwrap(PGConnection.class).getNotifications(200);
            for (PGNotification one : told == null ? new PGNotification[0] : told) {
                SEEN.append(one.getParameter()).append('\n');
            }
        }
    }

    public static void main(String[] arguments) throws SQLException {
        String[] values = Arrays.copyOfRange(arguments, 2, arguments.length);
        String[][] ways = {
            {},
            {"prepareThreshold=1"},
            {"prepareThreshold=-1"},
            {"preferQueryMode=simple"},
            {"preferQueryMode=extendedCacheEverything"},
            {"binaryTransfer=false"},
        };
        for (String[] way : ways) {
            all(arguments[0], arguments[1], values, way);
        }
        System.out.print(SEEN);
        System.out.println("rows seen: " + SEEN.toString().lines().filter(line -> line.contains("name ")).count());
        System.out.println("done");
    }
}
