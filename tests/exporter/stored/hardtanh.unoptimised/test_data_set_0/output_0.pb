
BhardtanhJxмлл╬млл╬?Зэ<ыBН>fff?млл╬┬\A?Rw°>╒щ<=бd╖╫млл╬1▌?млл╬млл╬['>fff?млл╬млл╬fff?fff?fff?fff?fff?фЕ><ш>млл╬fff?ы(и>fff?Бм4?