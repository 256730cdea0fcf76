"""What is each score, what does it cost, what follows? One room for each metric."""
