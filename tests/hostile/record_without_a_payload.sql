UPDATE record SET payload = NULL WHERE sequence = 1;
