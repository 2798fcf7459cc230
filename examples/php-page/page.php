<?php
header('Content-Type: text/plain; charset=utf-8');
$name = $_GET['name'] ?? 'nobody';
echo "Hello, ", htmlspecialchars($name), "!\n";
echo strlen(file_get_contents('php://input')), " bytes came with ", $_SERVER['REQUEST_METHOD'], ".\n";
