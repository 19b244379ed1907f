UPDATE fed SET label = 'yes';
