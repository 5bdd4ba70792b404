"""The HTTP faces except the page: the studio's own API, A1111's, and the guard and login in front of everything."""
