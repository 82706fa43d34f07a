"""What Python and TypeScript both keep to, as data: each contract stands here once, and is read from here."""
