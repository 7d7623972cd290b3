"""PostgreSQL: where it is, one connection, and the store on top. Only `address` may be imported without psycopg."""
