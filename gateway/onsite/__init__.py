"""What an engineer at the box meets: the folder CONFIG, the screen, updates and how they are judged."""
