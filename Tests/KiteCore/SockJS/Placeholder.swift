// Holds the folder until its tests are there.
