DELETE FROM record WHERE sequence = 3;
