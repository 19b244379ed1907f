UPDATE meta SET value = '{"on_conflict": "first", "window_seconds": "60"}' WHERE key = 'settings';
