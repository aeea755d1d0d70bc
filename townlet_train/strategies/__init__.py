"""The strategies that come with the program; they import what any plugin may import."""
