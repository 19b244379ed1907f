UPDATE meta SET value = '{"on_conflict": "newest"}' WHERE key = 'rules';
