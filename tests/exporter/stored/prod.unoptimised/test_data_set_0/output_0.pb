BprodJ¹
³ºÖ:	¹nû¼