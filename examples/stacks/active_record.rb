# Ruby with ActiveRecord: gem install activerecord pg; DATABASE_URL=postgresql://.. ruby examples/stacks/active_record.rb 42
require "active_record"
require "json"

ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))

class Product < ActiveRecord::Base
  self.table_name = "shop.products"
  self.primary_key = "product_id"

  # products in the order of one of recstore's lists, with its columns
  scope :listed, lambda { |list, *parameters|
    joins(sanitize_sql(["JOIN #{list} r ON r.item_id = shop.products.product_id", *parameters]))
      .where("r.score IS NOT NULL").order("r.score DESC").limit(5).select("r.*, shop.products.title")
  }
  scope :recommended_to, ->(user) { listed("retail.recommend(?, 5)", user) }
  scope :for_basket, ->(items) { listed("retail.recommend_for_items(ARRAY[?], k => 5)", items) }
  # what a query of the application's finds, in the user's order
  scope :ranked, ->(found, user) { listed("retail.rank_items(?, ARRAY(#{found.select(:product_id).to_sql}))", user) }
end

class View < ActiveRecord::Base
  self.table_name = "shop.views"
  self.primary_key = nil
end

def show(name, products)
  puts JSON.generate(name => products.map { |product| product.attributes.except("product_id") })
end

user = Integer(ARGV.fetch(0, "42"))
show "recommend", Product.recommended_to(user)
show "search", Product.ranked(Product.where("title LIKE ?", "%1%"), user)
show "basket", Product.for_basket([6, 9])

# a new user, who has recommendations in the transaction of the first view
ActiveRecord::Base.transaction do
  View.create!(user_id: 990001, product_id: 6, view_count: 1)
  show "view", Product.recommended_to(990001)
  raise ActiveRecord::Rollback
end
