UPDATE record SET payload = CAST(x'ff' AS TEXT);
