Bslice_2J$3O'¾ŽÁx?ê
¿GF
?Ž_•>ôH€?{Ox¾AÆ‹½Eê¢=