UPDATE meta SET value = '{"on_conflicts": "first"}' WHERE key = 'settings';
