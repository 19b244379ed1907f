UPDATE record SET digest = (SELECT digest FROM record WHERE sequence = 1) WHERE sequence = 3;
