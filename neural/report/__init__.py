"""What people look at: pictures, tables and one page of a network beside the optimum."""
