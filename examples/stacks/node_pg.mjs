// Node with pg: npm install pg; DATABASE_URL=postgresql://.. node examples/stacks/node_pg.mjs 42
import pg from "pg";

const user = Number(process.argv[2] ?? 42);
const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();

const titled = async (listed, ...parameters) => {
  const { rows } = await client.query(
    `SELECT r.*, p.title FROM ${listed} r JOIN shop.products p ON p.product_id = r.item_id
     WHERE r.score IS NOT NULL ORDER BY r.score DESC LIMIT 5`,
    parameters,
  );
  return rows;
};
const print = (name, rows) => console.log(JSON.stringify({ [name]: rows }));

print("recommend", await titled("retail.recommend($1, 5)", user));

// what the application's own query finds, in the user's order
print("search", await titled(
  "retail.rank_items($1, ARRAY(SELECT product_id FROM shop.products WHERE title LIKE $2))", user, "%1%",
));

print("basket", await titled("retail.recommend_for_items($1, k => 5)", [6, 9]));

// a new user, who has recommendations in the transaction of the first view
await client.query("BEGIN");
await client.query("INSERT INTO shop.views (user_id, product_id, view_count) VALUES ($1, $2, 1)", [990001, 6]);
print("view", await titled("retail.recommend($1, 5)", 990001));
await client.query("ROLLBACK");

await client.end();
