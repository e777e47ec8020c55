// Dnode
