"""(operator, design, machine) -> scheduled program, as ordered, named stages."""
