"""What `bench train` compares: the product's loop and a plain one, both measured in the same way."""
