"""`icewatch doctor`: finds what is wrong around a daemon, changes nothing, disturbs nobody."""
