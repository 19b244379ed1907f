UPDATE meta SET value = NULL WHERE key = 'tick';
