UPDATE record SET payload = 'text', digest = 'text';
