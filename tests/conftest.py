"""What every test may use."""

pytest_plugins = ["tests.engine_fixture", "tests.fraud_fixture", "tests.kafka_fixture", "tests.recommend_fixture"]
