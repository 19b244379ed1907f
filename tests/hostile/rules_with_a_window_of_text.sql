UPDATE meta SET value = '{"window_seconds": "60"}' WHERE key = 'rules';
