// pgjdbc as an application or a tool like DBeaver uses it: metadata, prepared statements, cursors, over TLS with a token.

import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

public final class Postgres {
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

  static Connection connect() throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", "analyst");
    properties.setProperty("password", System.getenv("CAIRN_TOKEN"));
    properties.setProperty("sslmode", "verify-full");
    properties.setProperty("sslrootcert", System.getenv("CAIRN_ROOT"));
    return DriverManager.getConnection(
        "jdbc:postgresql://localhost:" + System.getenv("CAIRN_POSTGRES_PORT") + "/cairn", properties);
  }

  static void metadata(Connection connection) throws SQLException {
    var about = connection.getMetaData();
    check(about.getDatabaseProductName().equals("PostgreSQL"), "product " + about.getDatabaseProductVersion());
    List<String> schemas = column(about.getSchemas(), "TABLE_SCHEM");
    check(schemas.containsAll(List.of("cairn", "energy", "test", "traffic")), "schemas " + schemas);
    List<String> tables = column(about.getTables(null, "traffic", "%", null), "TABLE_NAME");
    check(tables.equals(List.of("flow")), "tables " + tables);
    tables = column(about.getTables(null, "cairn", "%", new String[] {"VIEW"}), "TABLE_NAME");
    check(tables.contains("anchors") && tables.contains("records"), "views " + tables);
    try (ResultSet columns = about.getColumns(null, "test", "reading", "%")) {
      List<String> found = new ArrayList<>();
      while (columns.next()) {
        found.add(columns.getString("COLUMN_NAME") + " " + columns.getString("TYPE_NAME"));
      }
      check(
          found.subList(0, 5).equals(
              List.of("n int8", "sensor text", "at timestamptz", "value float8", "note text")),
          "columns " + found);
      check(found.contains("_offset int8"), "columns of every record");
    }
    List<String> keys = column(about.getPrimaryKeys(null, "test", "reading"), "COLUMN_NAME");
    check(keys.isEmpty(), "primary keys: none is declared to Postgres clients");
    check(column(about.getCatalogs(), "TABLE_CAT").contains("cairn"), "catalogues");
    check(column(about.getTableTypes(), "TABLE_TYPE").contains("TABLE"), "types of tables");
  }

  static void statements(Connection connection, long rows) throws SQLException {
    String counting = "SELECT count(*) FROM test.reading WHERE n < ? AND sensor <> ? AND at >= ?";
    try (PreparedStatement statement = connection.prepareStatement(counting)) {
      check(statement.getParameterMetaData().getParameterType(1) == Types.BIGINT, "the type of a parameter");
      // More often than prepareThreshold, so that the statement is kept on the server.
      for (int bound = 1; bound <= 8; bound++) {
        statement.setLong(1, bound * 100L);
        statement.setString(2, "nobody's");
        statement.setTimestamp(3, new Timestamp(0));
        try (ResultSet answer = statement.executeQuery()) {
          answer.next();
          check(answer.getLong(1) == bound * 100L, "count of " + bound * 100);
        }
      }
    }
    connection.setAutoCommit(false);
    try (Statement statement = connection.createStatement()) {
      statement.setFetchSize(64);
      long sum = 0;
      long count = 0;
      try (ResultSet answer = statement.executeQuery("SELECT n, at, value, note FROM test.reading ORDER BY n")) {
        while (answer.next()) {
          sum += answer.getLong("n");
          count++;
        }
      }
      check(count == rows && sum == rows * (rows - 1) / 2, "rows in pieces of 64: " + count);
    }
    connection.rollback();
    connection.setAutoCommit(true);
    try (Statement statement = connection.createStatement()) {
      SQLException error = null;
      try {
        statement.executeQuery("SELECT nothing FROM test.reading");
      } catch (SQLException refused) {
        error = refused;
      }
      check(error != null && "42703".equals(error.getSQLState()), "an error has its SQLSTATE: " + error);
      statement.execute("SET cairn.as_of = 1");
      try (ResultSet answer = statement.executeQuery("SELECT cairn_height()")) {
        answer.next();
        check(answer.getLong(1) == 1, "a session stands at a block");
      }
    }
  }

  /** What a tool sends when it connects and when its tree is opened, statement by statement. */
  static void file(Connection connection, Path file) throws Exception {
    for (String text : Files.readString(file).split(";\\s*(\n|$)")) {
      String sql = text.replaceAll("(?m)^--.*$", "").replace("$1", "?").strip();
      if (sql.isEmpty()) {
        continue;
      }
      try (PreparedStatement statement = connection.prepareStatement(sql)) {
        int places = statement.getParameterMetaData().getParameterCount();
        for (int place = 1; place <= places; place++) {
          statement.setObject(place, oid(connection, sql));
        }
        boolean answers = statement.execute();
        int rows = 0;
        while (answers && statement.getResultSet().next()) {
          rows++;
        }
        System.out.println("ok " + rows + " rows: " + sql.lines().findFirst().orElse(""));
      } catch (SQLException refused) {
        throw new AssertionError(sql, refused);
      }
    }
  }

  /** The object that a statement of a tool is about: a schema, or a table of it. */
  static long oid(Connection connection, String sql) throws SQLException {
    String about = sql.contains("relnamespace") || sql.contains("typnamespace") || sql.contains("pronamespace")
        ? "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'traffic'"
        : "SELECT oid FROM pg_catalog.pg_class WHERE relname = 'flow'";
    try (Statement statement = connection.createStatement(); ResultSet answer = statement.executeQuery(about)) {
      answer.next();
      return answer.getLong(1);
    }
  }

  public static void main(String[] arguments) throws Exception {
    try (Connection connection = connect()) {
      if (arguments.length > 0) {
        file(connection, Path.of(arguments[0]));
      } else {
        metadata(connection);
        statements(connection, Long.parseLong(System.getenv("CAIRN_ROWS")));
      }
    }
  }
}
