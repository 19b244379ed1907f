UPDATE meta SET value = 'one' WHERE key = 'first';
