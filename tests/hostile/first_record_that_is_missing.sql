DELETE FROM meta WHERE key = 'first';
