"""What is each score, what does it cost, what follows? A room a metric."""
