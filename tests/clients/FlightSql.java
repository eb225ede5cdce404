// The Flight SQL JDBC driver: metadata and statements, over TLS with a token.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public final class FlightSql {
  static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
    System.out.println("ok " + what);
  }

  static List<String> column(ResultSet rows, String name) throws SQLException {
    List<String> found = new ArrayList<>();
    try (rows) {
      while (rows.next()) {
        found.add(rows.getString(name));
      }
    }
    return found;
  }

  public static void main(String[] arguments) throws Exception {
    long rows = Long.parseLong(System.getenv("CAIRN_ROWS"));
    Properties properties = new Properties();
    properties.setProperty("token", System.getenv("CAIRN_TOKEN"));
    properties.setProperty("useEncryption", "true");
    properties.setProperty("useSystemTrustStore", "false");
    properties.setProperty("tlsRootCerts", System.getenv("CAIRN_ROOT"));
    String url = "jdbc:arrow-flight-sql://localhost:" + System.getenv("CAIRN_FLIGHT_PORT");
    try (Connection connection = DriverManager.getConnection(url, properties)) {
      var about = connection.getMetaData();
      check(about.getDatabaseProductName().equals("Cairn"), "product " + about.getDatabaseProductVersion());
      List<String> schemas = column(about.getSchemas(), "TABLE_SCHEM");
      check(schemas.containsAll(List.of("cairn", "energy", "test", "traffic")), "schemas " + schemas);
      List<String> tables = column(about.getTables(null, "traffic", "%", null), "TABLE_NAME");
      check(tables.equals(List.of("flow")), "tables " + tables);
      List<String> columns = column(about.getColumns(null, "test", "reading", "%"), "COLUMN_NAME");
      check(columns.subList(0, 5).equals(List.of("n", "sensor", "at", "value", "note")), "columns " + columns);
      List<String> keys = column(about.getPrimaryKeys(null, "test", "reading"), "COLUMN_NAME");
      check(keys.equals(List.of("_partition", "_offset")), "the key of a record " + keys);

      try (Statement statement = connection.createStatement();
          ResultSet answer = statement.executeQuery("SELECT n, sensor, at, value, note FROM test.reading ORDER BY n")) {
        long count = 0;
        while (answer.next()) {
          long n = answer.getLong("n");
          if (n != count || !answer.getString("sensor").equals("sensor-" + n % 97)
              || answer.getTimestamp("at").getTime() != 1_700_000_000_000L + n * 1000) {
            throw new AssertionError("row " + count + " has n = " + n);
          }
          count++;
        }
        check(count == rows, "all " + count + " rows, each as it was published");
      }
      for (String stream : List.of("traffic.flow", "energy.meter_reading", "emergency.incident")) {
        try (Statement statement = connection.createStatement();
            ResultSet answer = statement.executeQuery("SELECT * FROM " + stream + " LIMIT 20")) {
          int width = answer.getMetaData().getColumnCount();
          int count = 0;
          while (answer.next()) {
            for (int place = 1; place <= width; place++) {
              answer.getString(place);
            }
            count++;
          }
          check(count > 0, count + " rows of " + stream + " with " + width + " columns");
        }
      }
      String counting = "SELECT count(*) FROM test.reading WHERE n < ? AND sensor <> ?";
      try (PreparedStatement statement = connection.prepareStatement(counting)) {
        for (long bound : new long[] {100, 700}) {
          statement.setLong(1, bound);
          statement.setString(2, "nobody's");
          try (ResultSet answer = statement.executeQuery()) {
            answer.next();
            check(answer.getLong(1) == bound, "count of " + bound);
          }
        }
      }
      try (Statement statement = connection.createStatement()) {
        SQLException error = null;
        try {
          statement.executeQuery("SELECT nothing FROM test.reading");
        } catch (SQLException refused) {
          error = refused;
        }
        check(error != null && error.getMessage().contains("42703"), "an error has its SQLSTATE: " + error);
      }
    }
  }
}
