UPDATE meta SET value = '[]' WHERE key = 'rules';
