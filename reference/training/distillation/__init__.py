"""The paper's path: a student learns a teacher's embeddings; start at README.md."""
