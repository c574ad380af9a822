// One delete with a parameter, which waits until it is approved.

import java.sql.*;

public class Held {
  public static void main(String[] args) throws Exception {
    String url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/app?user=app";
    try (Connection connection = DriverManager.getConnection(url);
        PreparedStatement delete =
            connection.prepareStatement("DELETE FROM notes WHERE id = ?")) {
      delete.setInt(1, 2);
      System.out.println("deleted " + delete.executeUpdate());
    }
  }
}
