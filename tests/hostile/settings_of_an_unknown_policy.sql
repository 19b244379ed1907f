UPDATE meta SET value = '{"on_conflict": "newest", "window_seconds": null}' WHERE key = 'settings';
