UPDATE OR REPLACE record SET sequence = 2 WHERE sequence = 4;
