"""The offline store's parts: sources and entity rows in DuckDB's terms, the joins, the job."""
