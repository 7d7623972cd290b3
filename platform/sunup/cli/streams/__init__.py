"""`platform stream`: the topics functions score, and what people do to them."""
