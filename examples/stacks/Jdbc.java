// Plain JDBC: JDBC_URL=jdbc:postgresql://.. java -cp postgresql.jar examples/stacks/Jdbc.java 42
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

public class Jdbc {
    static void titled(Connection connection, String name, String listed, Object... parameters) throws SQLException {
        String sql = "SELECT jsonb_build_object(?, coalesce(jsonb_agg(l), '[]')) FROM (SELECT r.*, p.title FROM " + listed
            + " r JOIN shop.products p ON p.product_id = r.item_id WHERE r.score IS NOT NULL ORDER BY r.score DESC LIMIT 5) l";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, name);
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 2, parameters[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                System.out.println(rows.getString(1));
            }
        }
    }

    public static void main(String[] arguments) throws SQLException {
        long user = arguments.length > 0 ? Long.parseLong(arguments[0]) : 42;
        try (Connection connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            titled(connection, "recommend", "retail.recommend(?, 5)", user);

            // what the application's own query finds, in the user's order
            titled(connection, "search",
                "retail.rank_items(?, ARRAY(SELECT product_id FROM shop.products WHERE title LIKE ?))", user, "%1%");

            titled(connection, "basket", "retail.recommend_for_items(?, k => 5)",
                connection.createArrayOf("integer", new Object[] {6, 9}));

            // a new user, who has recommendations in the transaction of the first view
            connection.setAutoCommit(false);
            try (PreparedStatement insert = connection.prepareStatement(
                    "INSERT INTO shop.views (user_id, product_id, view_count) VALUES (?, ?, 1)")) {
                insert.setLong(1, 990001);
                insert.setInt(2, 6);
                insert.executeUpdate();
            }
            titled(connection, "view", "retail.recommend(?, 5)", 990001L);
            connection.rollback();
        }
    }
}
